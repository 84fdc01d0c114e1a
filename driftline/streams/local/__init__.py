"""Services on this machine, without Docker: an embedded broker, a real Apache Kafka, a real Redis."""
