"""What programs read of a result: the JSON of each verb, and what is XML or SARIF. Names here are promises."""
