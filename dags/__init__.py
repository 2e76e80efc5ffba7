"""
The example DAGs. Each file stands alone: copy it into your DAGs folder, then change what you need.

This folder is also the package's ``airflow_provider_quoine/example_dags``, by a symbolic link; in an installed package
the files are there.
"""
