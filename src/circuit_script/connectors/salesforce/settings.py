"""What is said of an org: its version, what our objects and fields are called there, which fields hold ids of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

VERSION = "62.0"
LOGIN = "https://login.salesforce.com"

# Our objects and those of Salesforce. One that is not here goes by its own name: `Invoice__c`.
OBJECTS: Mapping[str, str] = {
    "Contact": "Contact",
    "Lead": "Lead",
    "Company": "Account",
    "Opportunity": "Opportunity",
    "Task": "Task",
    "Appointment": "Event",
    "Campaign": "Campaign",
    "Note": "Note",
}

_PERSON: Mapping[str, str] = {
    "firstName": "FirstName",
    "lastName": "LastName",
    "name": "Name",
    "email": "Email",
    "phone": "Phone",
    "source": "LeadSource",
    "assignedTo": "OwnerId",
    "dateAdded": "CreatedDate",
    "dateUpdated": "LastModifiedDate",
}
_WHEN: Mapping[str, str] = {"dateAdded": "CreatedDate", "dateUpdated": "LastModifiedDate"}

# Our fields and those of Salesforce, by the sObject. One that is not here goes by its own name: `Score__c`.
FIELDS: Mapping[str, Mapping[str, str]] = {
    "Contact": {
        **_PERSON,
        "address1": "MailingStreet",
        "city": "MailingCity",
        "state": "MailingState",
        "postalCode": "MailingPostalCode",
        "country": "MailingCountry",
        "dateOfBirth": "Birthdate",
        "companyId": "AccountId",
    },
    "Lead": {
        **_PERSON,
        "companyName": "Company",
        "address1": "Street",
        "city": "City",
        "state": "State",
        "postalCode": "PostalCode",
        "country": "Country",
        "website": "Website",
        "status": "Status",
    },
    "Account": {"name": "Name", "phone": "Phone", "website": "Website", "assignedTo": "OwnerId", **_WHEN},
    "Opportunity": {
        "name": "Name",
        "monetaryValue": "Amount",
        "pipelineStageId": "StageName",
        "closeDate": "CloseDate",
        "contactId": "ContactId",
        "source": "LeadSource",
        "assignedTo": "OwnerId",
        **_WHEN,
    },
    "Task": {
        "title": "Subject",
        "body": "Description",
        "dueDate": "ActivityDate",
        "status": "Status",
        "completed": "IsClosed",
        "contactId": "WhoId",
        "assignedTo": "OwnerId",
        **_WHEN,
    },
    "Event": {
        "title": "Subject",
        "startTime": "StartDateTime",
        "endTime": "EndDateTime",
        "address": "Location",
        "notes": "Description",
        "contactId": "WhoId",
        "assignedUserId": "OwnerId",
        **_WHEN,
    },
    "Campaign": {"name": "Name", "status": "Status", "assignedTo": "OwnerId", **_WHEN},
    "Note": {"title": "Title", "body": "Body", "contactId": "ParentId", "assignedTo": "OwnerId", **_WHEN},
}


@dataclass(frozen=True, slots=True)
class SalesforceSettings:
    """``objects`` (ours → sObject) and ``fields`` (our object → our field → theirs) are added to the tables above.

    ``external_ids`` (our object → field) names a unique external id of each object that may hold ids of ours: by it
    an insert of which no answer came is found again, and records are upserted. So many effects and more, ``bulk_from``,
    go as one Bulk 2.0 job.
    """

    version: str = VERSION
    login_url: str = LOGIN
    objects: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    external_ids: Mapping[str, str] = field(default_factory=dict)
    bulk_from: int = 2000
    bulk_seconds: float = 600.0
