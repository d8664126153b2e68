"""What theory says, as data: powers of scale ratios, tables of rules, optimizer families.

Read `paramz.theory.tables` first. Imports no torch and nothing else of paramz.
"""
