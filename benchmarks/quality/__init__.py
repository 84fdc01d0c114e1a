"""Detection quality: false alarms on streams without a change, delay on streams with one, beside other detectors."""
