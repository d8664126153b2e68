"""What a sweep has: results, attempts and their files."""
