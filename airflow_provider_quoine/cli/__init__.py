"""Commands of ``airflow quoine``: how a person settles what no program can know."""
