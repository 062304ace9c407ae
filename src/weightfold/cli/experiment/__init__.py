"""List the tables and figures of papers that can be run again, or run one."""
