"""What records of an object look like: fields, their types, and what an app adds to them. Needs nothing but pydantic,
which who registers no schema never imports.

    registered   which objects have a schema in this process
    model        `ObjectSchema`: how a class becomes an object's schema
    objects      the usual objects of a CRM, by GoHighLevel's names of fields
    kinds        types of fields as CRMs send them
    fitting      what is wrong with a record, field by field
    facts        what a CRM says of its fields
    source       schemas from these facts, as Python           layout      how it is broken into lines
    comparing    what two such modules say otherwise
"""
