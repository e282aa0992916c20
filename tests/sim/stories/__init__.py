"""Stories: what each rule is for, a dozen lines each. The docstring begins with the rule's
number."""
