"""The hundred headings of LEDGAR, by their number in LexGLUE, and the mark of a written heading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from common.data.answers import exact

HEADINGS = (
    "Adjustments, Agreements, Amendments, Anti-Corruption Laws, Applicable Laws, Approvals, Arbitration, Assignments, "
    "Assigns, Authority, Authorizations, Base Salary, Benefits, Binding Effects, Books, Brokers, Capitalization, "
    "Change In Control, Closings, Compliance With Laws, Confidentiality, Consent To Jurisdiction, Consents, "
    "Construction, Cooperation, Costs, Counterparts, Death, Defined Terms, Definitions, Disability, Disclosures, "
    "Duties, Effective Dates, Effectiveness, Employment, Enforceability, Enforcements, Entire Agreements, Erisa, "
    "Existence, Expenses, Fees, Financial Statements, Forfeitures, Further Assurances, General, Governing Laws, "
    "Headings, Indemnifications, Indemnity, Insurances, Integration, Intellectual Property, Interests, "
    "Interpretations, Jurisdictions, Liens, Litigations, Miscellaneous, Modifications, No Conflicts, No Defaults, "
    "No Waivers, Non-Disparagement, Notices, Organizations, Participations, Payments, Positions, Powers, Publicity, "
    "Qualifications, Records, Releases, Remedies, Representations, Sales, Sanctions, Severability, Solvency, "
    "Specific Performance, Submission To Jurisdiction, Subsidiaries, Successors, Survival, Tax Withholdings, Taxes, "
    "Terminations, Terms, Titles, Transactions With Affiliates, Use Of Proceeds, Vacations, Venues, Vesting, "
    "Waiver Of Jury Trials, Waivers, Warranties, Withholdings"
)


def named(dataset: Any) -> Any:
    """Return the rows with the name of their heading and, for the prompt, all headings."""
    names = HEADINGS.split(", ")
    rows = dataset.add_column("heading", [names[label] for label in dataset["label"]])
    return rows.add_column("headings", [HEADINGS] * len(dataset))


def mark(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Mark one reply: its first line is the heading, but for case and punctuation."""
    lines = results[0].strip().splitlines()
    return {"exact_match": float(bool(lines) and exact(lines[0], [doc["heading"]]))}
