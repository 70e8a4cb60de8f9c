"""One execution, from a batch to its outcome.

What both sides share stands here: what they say (`protocol`, `nursery`, `session`) and how it ends (`outcome`).

    authoring/  what an author writes with: handlers, endpoints, jobs, context, CircuitDB, http, llm, log
    child/      the governed process
    web/        endpoints and the author's own web app in it
    zygote/     the process that imports the app once and forks children
    isolation/  what the kernel keeps from them
    broker/     the trusted side's answer to what a child asks for
    host/       the trusted side of the processes: who runs what, and what is over its limit
"""
