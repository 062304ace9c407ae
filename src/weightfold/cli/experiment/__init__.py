"""List the tables and figures of papers that can be run again (experiment list), or run one."""
