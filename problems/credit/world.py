"""How do loan applications come about, and what is the true probability of default?

A structural model: circumstances cause choices, both cause default. Everything is drawn from one seed, and the
knobs move the population (covariate shift), the relation (concept shift) and the labels (noise).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

EMPLOYMENT = ["permanent", "temporary", "self_employed", "gig", "retired", "unemployed"]
PURPOSE = ["car", "home", "education", "debt", "business", "other"]
HISTORY = ["none", "poor", "fair", "good", "excellent"]
CHANNEL = ["branch", "web", "app", "broker"]
AGES = ["18-34", "35-54", "55+"]
START = pd.Timestamp("2024-01-01")


@dataclass(frozen=True)
class Knobs:
    """What can be moved. All zero is the world as it was.

    gig_wave: shift of the population towards gig and self-employed applicants through the app (0 none, 1 strong).
    recession: rise in log-odds of default for gig, self-employed and business loans: P(y | x) changes.
    label_noise: share of labels that are turned around.
    invalid: share of rows that break the contract, as careless upstream systems write them.
    """

    gig_wave: float = 0.0
    recession: float = 0.0
    label_noise: float = 0.0
    invalid: float = 0.0


def _choose(rng: np.random.Generator, values: list[str], weights: np.ndarray) -> np.ndarray:
    """One value per row, with the row's own weights, shape (n, len(values))."""
    edges = np.cumsum(weights / weights.sum(axis=1, keepdims=True), axis=1)
    return np.array(values, dtype=object)[(rng.random((len(weights), 1)) > edges[:, :-1]).sum(axis=1)]


def draw(rows: int, knobs: Knobs, seed: int, first_id: int, days: tuple[float, float]) -> pd.DataFrame:
    """Draw applications with their truth: the contract's columns, `defaulted` and `p_default` (the true P(y | x)).

    Ids count from `first_id`; times are spread evenly over `days` (days since the world's start).
    """
    rng = np.random.default_rng([seed, first_id])
    sex = rng.choice(["female", "male"], rows, p=[0.48, 0.52])
    age = 18 + 55 * rng.beta(1.6, 2.2, rows)
    age_group = np.array(AGES, dtype=object)[np.digitize(age, [35, 55])]
    wave = knobs.gig_wave
    retired = age > 63
    work = np.column_stack(
        [
            np.full(rows, 0.60 * (1 - 0.7 * wave)),
            np.full(rows, 0.14),
            np.full(rows, 0.12 + 0.18 * wave),
            np.full(rows, 0.06 + 0.40 * wave) * np.where(age < 40, 1.05, 0.95),
            np.where(retired, 3.0, 0.0),
            np.full(rows, 0.05),
        ]
    )
    employment = _choose(rng, EMPLOYMENT, work)
    years = np.clip(rng.gamma(1.6, 3.5, rows), 0, np.maximum(age - 18, 0.2))
    years = np.where(np.isin(employment, ["gig", "unemployed"]), years * 0.3, years)
    level = (
        pd.Series(employment)
        .map({"permanent": 10.55, "temporary": 10.2, "self_employed": 10.5, "gig": 10.05, "retired": 10.1, "unemployed": 9.5})
        .to_numpy(float)
    )
    income = np.exp(level + 0.012 * np.minimum(years, 20) + rng.normal(0, 0.38, rows))
    reliability = rng.normal(0, 1, rows) + 0.25 * (years > 4)
    history = np.array(HISTORY, dtype=object)[np.digitize(reliability + rng.normal(0, 0.5, rows), [-1.3, -0.6, 0.2, 1.1])]
    history = np.where((age < 22) & (rng.random(rows) < 0.5), "none", history)
    late = np.minimum(rng.poisson(np.exp(-0.7 - 0.8 * reliability)), 24)
    open_loans = np.minimum(rng.poisson(1.2 + 0.3 * (income > 35000)), 20)
    utilization = np.clip(rng.beta(1.6, 2.4, rows) - 0.1 * reliability + 0.05 * open_loans, 0, 1.5)
    homeowner = (rng.random(rows) < 1 / (1 + np.exp(-(np.log(income) - 10.9) * 1.6 - (age - 45) * 0.04))).astype(float)
    purpose = _choose(rng, PURPOSE, np.tile([0.26, 0.22, 0.10, 0.20, 0.08 + 0.12 * wave, 0.14], (rows, 1)))
    channel = _choose(rng, CHANNEL, np.tile([0.3 * (1 - wave), 0.34, 0.2 + 0.6 * wave, 0.16], (rows, 1)))
    wish = np.exp(rng.normal(9.2, 0.6, rows)) * np.where(purpose == "home", 1.7, 1.0)
    amount = np.clip(np.minimum(wish, 9.5 * income), 500, 75000)
    term = np.clip(np.round(rng.normal(36, 14, rows) + amount / 2500), 6, 84)

    p = _probability(employment, purpose, history, income, amount, term, years, late, utilization, open_loans, homeowner, knobs)
    defaulted = (rng.random(rows) < p).astype(float)
    flip = rng.random(rows) < knobs.label_noise
    defaulted = np.where(flip, 1 - defaulted, defaulted)
    identity = np.arange(first_id, first_id + rows)
    # About one application in eight comes from a customer who applied shortly before.
    again = rng.random(rows) < 0.12
    customer = np.where(again, np.maximum(identity - rng.integers(1, 40, rows), 0), identity)
    at = START + pd.to_timedelta(np.linspace(days[0], days[1], rows, endpoint=False), unit="D")
    frame = pd.DataFrame(
        {
            "application_id": [f"A{i:08d}" for i in identity],
            "customer_id": [f"C{i:08d}" for i in customer],
            "applied_at": at.astype("datetime64[us]"),
            "income": np.where(rng.random(rows) < 0.03, np.nan, np.round(income, 2)),
            "amount": np.round(amount, 2),
            "term_months": term,
            "employment": employment,
            "years_employed": np.where(rng.random(rows) < 0.02, np.nan, np.round(years, 1)),
            "purpose": purpose,
            "history": history,
            "open_loans": open_loans.astype(float),
            "late_payments": late.astype(float),
            "utilization": np.where(rng.random(rows) < 0.05, np.nan, np.round(utilization, 3)),
            "homeowner": homeowner,
            "channel": channel,
            "sex": sex,
            "age_group": age_group,
            "defaulted": defaulted,
            "p_default": p,
        }
    )
    return _spoil(frame, knobs.invalid, rng)


def _probability(
    employment: np.ndarray,
    purpose: np.ndarray,
    history: np.ndarray,
    income: np.ndarray,
    amount: np.ndarray,
    term: np.ndarray,
    years: np.ndarray,
    late: np.ndarray,
    utilization: np.ndarray,
    open_loans: np.ndarray,
    homeowner: np.ndarray,
    knobs: Knobs,
) -> np.ndarray:
    """The stated P(default | x), shape (n,). The protected attributes have no part in it."""
    burden = amount / term * 12 / income
    worth = pd.Series(history).map({"none": 0.3, "poor": 1.0, "fair": 0.3, "good": -0.4, "excellent": -1.0}).to_numpy(float)
    risk = {"permanent": -0.35, "temporary": 0.15, "self_employed": 0.0, "gig": 0.1, "retired": -0.3, "unemployed": 0.9}
    aim = {"car": -0.2, "home": -0.35, "education": 0.0, "debt": 0.4, "business": 0.35, "other": 0.1}
    z = -1.85 + worth + pd.Series(employment).map(risk).to_numpy(float) + pd.Series(purpose).map(aim).to_numpy(float)
    z += 2.6 * np.tanh(1.8 * (burden - 0.25)) + 0.55 * np.log1p(late)
    z += 1.5 * np.maximum(utilization - 0.6, 0) * (1 + open_loans / 3) - 0.35 * homeowner
    # A young business is risky unless the income is high: no straight line says this.
    z += 1.3 * ((purpose == "business") & (years < 2)) - 1.0 * ((purpose == "business") & (income > 45000))
    # Neither does one for these: debt on debt, a long term on a small loan, a house as security.
    z += 1.4 * ((purpose == "debt") & (open_loans >= 2)) + 0.9 * ((term > 48) & (amount < 8000))
    z -= 1.1 * ((purpose == "home") & (homeowner == 1)) + 0.8 * ((years > 8) & (late == 0))
    exposed = np.isin(employment, ["gig", "self_employed"]) + 0.6 * (purpose == "business")
    z += knobs.recession * exposed
    return np.asarray(1 / (1 + np.exp(-z)))


def _spoil(frame: pd.DataFrame, share: float, rng: np.random.Generator) -> pd.DataFrame:
    """Break the contract in a share of the rows, each in one way."""
    kind = np.where(rng.random(len(frame)) < share, rng.integers(0, 4, len(frame)), -1)
    frame.loc[kind == 0, "amount"] = -1.0
    frame.loc[kind == 1, "employment"] = "n/a"
    frame.loc[kind == 2, "late_payments"] = 99.0
    frame.loc[kind == 3, "term_months"] = 36.5
    return frame
