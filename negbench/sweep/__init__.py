"""Curves in place of points: a rule at many strengths, removal against damage."""
