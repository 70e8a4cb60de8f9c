"""Queries written as Salesforce's developers write them: ``SELECT Id, Email FROM Contact WHERE Score > 80``."""
