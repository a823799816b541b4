"""The threads of a QAMProxy, and the result list that they share."""
