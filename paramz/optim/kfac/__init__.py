"""K-FAC and FOOF, which precondition with Kronecker-factored Fisher matrices."""
