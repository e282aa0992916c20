"""Stories: what each rule is for, a dozen lines each; the docstring begins with the rule's number."""
