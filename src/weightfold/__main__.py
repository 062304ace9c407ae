"""`python -m weightfold`: the command line."""

from weightfold.cli import main

raise SystemExit(main())
