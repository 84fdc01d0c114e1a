"""Another number of partitions for Driftline's own topics: `driftline state rescale`.

From a savepoint of a stopped installation to one for another `topics.prefix`. State moves with its model; what waits for
labels, and labels that may still be asked for, are written again where their ids belong now. The topics that were are
only read.
"""
