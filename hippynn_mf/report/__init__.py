"""What finished runs show: tables, intervals, findings and figures."""
