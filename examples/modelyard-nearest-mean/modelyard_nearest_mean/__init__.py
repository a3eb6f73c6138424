"""A framework for Modelyard: a class is the mean of its images, moved by its mistakes."""
