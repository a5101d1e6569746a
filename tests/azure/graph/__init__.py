"""A mock of Microsoft Graph and of Entra's sign-in, for tests of setup.sh and cleanup.sh. See ../README.md."""

LOGIN = "login.microsoftonline.com"
GRAPH = "graph.microsoft.com"
MANAGEMENT = "management.azure.com"
HOSTS = [LOGIN, GRAPH, MANAGEMENT]
