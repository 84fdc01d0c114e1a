"""alert: drift events in, alerts with a life out; a Faust app around a pure list of stages."""
