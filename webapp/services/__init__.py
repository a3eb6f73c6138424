"""The rules: what may happen to jobs, data sets, people and projects. Views only call these."""
