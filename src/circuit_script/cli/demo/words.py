"""The people, companies and sentences that the demo's vendor speaks of. All invented."""

from __future__ import annotations

FIRST_NAMES = (
    "Ada", "Amir", "Bea", "Björn", "Carla", "Chidi", "Dagny", "Dario", "Elif", "Emeka", "Fleur", "Farid",
    "Greta", "Gus", "Hana", "Hugo", "Ines", "Ivo", "Jamal", "Jorun", "Keiko", "Kofi", "Leila", "Luca",
    "Mara", "Mbali", "Nadia", "Niko", "Olu", "Orla", "Petra", "Pim", "Quinn", "Rafa", "Rosa", "Saoirse",
    "Sven", "Tariq", "Tess", "Uma", "Vera", "Wanda", "Xiu", "Yara", "Zeki", "Zoë",
)  # fmt: skip

LAST_NAMES = (
    "Achterberg", "Adeyemi", "Alder", "Bancroft", "Bellini", "Birch", "Castellan", "Coldwell", "Dahlgren",
    "Delacour", "Eastley", "Fairburn", "Farrow", "Garrick", "Greenhalgh", "Haddad", "Holloway", "Ibarra",
    "Jansen", "Kestrel", "Kowalczyk", "Lindqvist", "Marchetti", "Merriweather", "Nakagawa", "Nwosu",
    "O’Halloran", "Okonkwo", "Pemberton", "Quist", "Rahimi", "Rosewood", "Sallow", "Santangelo", "Thackeray",
    "Tiernan", "Underhill", "Vasquez", "Whitlock", "Yamauchi", "Zielinski",
)  # fmt: skip

COMPANIES = (
    "Alder & Finch", "Beacon Row", "Blue Heron", "Brightwater", "Copperfield", "Crestline", "Driftwood",
    "Eastgate", "Fernhill", "Foxglove", "Granite Lane", "Harbor Light", "Highmeadow", "Ironbridge",
    "Juniper", "Kingsford", "Larkspur", "Longacre", "Maplewood", "Northwind", "Oakhurst", "Pinecrest",
    "Quarry Street", "Redstone", "Silver Birch", "Stonegate", "Summit", "Thornbury", "Valley Forge", "Westbrook",
)  # fmt: skip

TRADES = (
    "Dental", "Fitness", "Heating & Air", "Plumbing", "Roofing", "Landscaping", "Physiotherapy", "Auto Care",
    "Bakery", "Consulting", "Property Care", "Veterinary",
)  # fmt: skip

CITIES = (
    ("Dallas", "TX", "75201"), ("University Park", "TX", "75205"), ("Irving", "TX", "75061"),
    ("Garland", "TX", "75040"), ("Plano", "TX", "75023"), ("Fort Worth", "TX", "76102"),
    ("Denton", "TX", "76201"), ("Waco", "TX", "76701"), ("Austin", "TX", "78701"), ("Tulsa", "OK", "74103"),
)  # fmt: skip

SEGMENTS = ("families", "young professionals", "seniors", "students")
SERVICES = ("membership", "personal training", "family plan", "yoga", "physiotherapy", "parking")
TIMELINES = ("asap", "this week", "within 30 days", "1-3 months", "3-6 months", "just looking")
JOB_TITLES = ("Owner", "Founder", "CEO", "Director of People", "Office Manager", "Nurse", "Teacher", "Technician")

STREETS = ("Elm St", "Maple Ave", "Commerce St", "Main St", "Oak Lawn Ave", "Ross Ave", "Mill Rd", "Live Oak St")

SOURCES = ("website form", "google ads", "facebook lead ad", "referral", "landing page", "phone", "walk-in")

TAGS = ("spring-offer", "newsletter", "tour", "family-plan", "corporate", "callback", "returning", "open-house")

TEXTS = (
    "Yes, I would love to come by this week. What times do you have?",
    "How much is the family plan?",
    "Could somebody call me back, please?",
    "Not interested, thank you.",
    "Thanks! I will talk to my partner and let you know.",
    "Do you have a place free on Saturday morning?",
    "Maybe next year, money is tight just now.",
    "Great talking to you today. Please send the contract over.",
    "Is there parking at your location?",
    "We would like to start on the first of the month.",
)

SUBJECTS = ("Your offer", "Re: visit on Thursday", "Question about the contract", "Price list", "Trial week")

TITLES = ("Tour of the house", "First consultation", "Trial session", "Contract signing", "Call with the team")

# The custom fields of the demo's location, by kind: what its form asks, and what the lead score writes.
TEXT_FIELDS = (
    "segment", "budget", "buying_for", "jobTitle", "service", "timeline", "sms_consent",
    "lpr_grade", "lpr_band", "lpr_route", "lpr_reasons", "lpr_scored_at", "lpr_profile", "lpr_signals",
    "lpr_alerted_at",
)  # fmt: skip
NUMBER_FIELDS = ("lpr_score", "lpr_fit", "lpr_intent", "lpr_timing", "lpr_p_win")
