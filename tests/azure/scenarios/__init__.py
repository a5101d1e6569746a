"""The scenarios of tests/azure/run: functions that raise an exception if an assertion fails."""
