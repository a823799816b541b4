"""The threads of a QAMServer, and the decisions that they carry out."""
