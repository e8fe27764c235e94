"""`python -m distill.core`, and so `accelerate launch -m distill.core train recipe.yaml`."""

from distill.core.cli import main

if __name__ == "__main__":
    main()
