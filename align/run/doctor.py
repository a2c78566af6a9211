"""`align doctor`: what training needs of this machine, each thing really tried, and how to mend what is wrong."""
