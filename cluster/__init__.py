"""Where Ray runs: the local machine, a cluster that exists, or one that the files of this folder describe."""
