"""The usual objects of a CRM. Names of fields are GoHighLevel's, as its webhooks and API have them.

Every field may be missing: a vendor's update brings what it likes.
"""

from __future__ import annotations

from typing import Any

from circuit_script.schemas.model import Moment, Number, ObjectSchema

CustomFields = list[dict[str, Any]] | dict[str, Any] | None


class ContactSchema(ObjectSchema):
    """A person, or a company's person. Custom fields stand under their own names, too."""

    locationId: str | None = None
    firstName: str | None = None
    lastName: str | None = None
    name: str | None = None
    email: str | None = None
    phone: str | None = None
    companyName: str | None = None
    address1: str | None = None
    city: str | None = None
    state: str | None = None
    country: str | None = None
    postalCode: str | int | None = None
    website: str | None = None
    timezone: str | None = None
    source: str | None = None
    assignedTo: str | None = None
    tags: list[str] | None = None
    dnd: bool | None = None
    dndSettings: dict[str, Any] | None = None
    dateOfBirth: Moment = None
    dateAdded: Moment = None
    dateUpdated: Moment = None
    attachments: list[Any] | None = None
    customFields: CustomFields = None


class OpportunitySchema(ObjectSchema):
    """A deal in a pipeline. ``monetaryValue`` is in the account's currency."""

    locationId: str | None = None
    name: str | None = None
    contactId: str | None = None
    pipelineId: str | None = None
    pipelineStageId: str | None = None
    status: str | None = None
    monetaryValue: Number = None
    assignedTo: str | None = None
    source: str | None = None
    dateAdded: Moment = None
    dateUpdated: Moment = None
    customFields: CustomFields = None


class ReviewSchema(ObjectSchema):
    """What a customer has said of a place. ``rating`` is in stars."""

    locationId: str | None = None
    contactId: str | None = None
    reviewer: str | dict[str, Any] | None = None
    rating: Number = None
    comment: str | None = None
    reply: str | dict[str, Any] | None = None
    source: str | None = None
    dateAdded: Moment = None
    dateUpdated: Moment = None


class CampaignSchema(ObjectSchema):
    """A campaign, or a contact's place in one."""

    locationId: str | None = None
    name: str | None = None
    contactId: str | None = None
    status: str | None = None
    templateId: str | None = None
    replied: str | bool | None = None
    dateAdded: Moment = None
    dateUpdated: Moment = None


class AppointmentSchema(ObjectSchema):
    """A meeting in a calendar."""

    locationId: str | None = None
    title: str | None = None
    address: str | None = None
    calendarId: str | None = None
    contactId: str | None = None
    groupId: str | None = None
    appointmentStatus: str | None = None
    assignedUserId: str | None = None
    users: list[str] | None = None
    notes: str | None = None
    source: str | None = None
    startTime: Moment = None
    endTime: Moment = None
    dateAdded: Moment = None
    dateUpdated: Moment = None


class MessageSchema(ObjectSchema):
    """An SMS, e-mail, call or chat, in or out. ``callDuration`` is in seconds. The sender is in the field ``from``."""

    locationId: str | None = None
    contactId: str | None = None
    conversationId: str | None = None
    messageId: str | None = None
    emailMessageId: str | None = None
    threadId: str | None = None
    conversationProviderId: str | None = None
    userId: str | None = None
    direction: str | None = None
    messageType: str | None = None
    contentType: str | None = None
    status: str | None = None
    subject: str | None = None
    body: str | None = None
    to: list[str] | str | None = None
    source: str | None = None
    callDuration: Number = None
    callStatus: str | None = None
    dateAdded: Moment = None
    attachments: list[Any] | None = None


class NoteSchema(ObjectSchema):
    """A note at a contact."""

    locationId: str | None = None
    contactId: str | None = None
    userId: str | None = None
    body: str | None = None
    dateAdded: Moment = None
    dateUpdated: Moment = None


class TaskSchema(ObjectSchema):
    """Something to be done, about a contact."""

    locationId: str | None = None
    contactId: str | None = None
    assignedTo: str | None = None
    title: str | None = None
    body: str | None = None
    completed: bool | None = None
    dueDate: Moment = None
    dateAdded: Moment = None
    dateUpdated: Moment = None
