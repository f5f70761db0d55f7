"""`python -m huarizo`: the same as the `huarizo` command."""

from huarizo.cli.app import main

if __name__ == "__main__":
    main()
