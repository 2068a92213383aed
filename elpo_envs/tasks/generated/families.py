"""The families: ten kinds of story, each with plain sentences and sentences that people misread."""

from __future__ import annotations

from elpo_envs.tasks.generated.story import Family, Move


def _comparison(thing: str, verb: str, more: str, fewer: str, many: str) -> tuple[Move, ...]:
    """Sentences comparing a new person {q} with the last one {p}; the reversed ones invite the wrong operation."""
    return (
        Move(f"{{q}} {verb} {{n}} {more} {thing} than {{p}}.", "{x} + {n}", n=(2, 30)),
        Move(f"{{q}} {verb} {{n}} {fewer} {thing} than {{p}}.", "{x} - {n}", n=(2, 30)),
        Move(f"{{q}} {verb} {{n}} times as {many} {thing} as {{p}}.", "{x} * {n}", n=(2, 5)),
        Move(f"{{p}} {verb} {{n}} {more} {thing} than {{q}}.", "{x} - {n}", "{x} + {n}", n=(2, 30)),
        Move(f"{{p}} {verb} {{n}} {fewer} {thing} than {{q}}.", "{x} + {n}", "{x} - {n}", n=(2, 30)),
        Move(f"{{p}} {verb} {{n}} times as {many} {thing} as {{q}}.", "{x} // {n}", "{x} * {n}", n=(2, 5)),
    )


CARDS = Family(
    "cards",
    (Move("{p} has {n} packs of {m} cards.", "{n} * {m}", n=(2, 12), m=(5, 20)),),
    _comparison("cards", "has", "more", "fewer", "many"),
    "How many cards does {p} have?",
)

POINTS = Family(
    "points",
    (
        Move(
            "In the first round {p} scores {n} points and in the second {m} points.",
            "{n} + {m}",
            n=(5, 60),
            m=(5, 60),
        ),
    ),
    _comparison("points", "scores", "more", "fewer", "many"),
    "How many points does {p} score?",
)

MARBLES = Family(
    "marbles",
    (Move("{p} has {n} bags of {m} marbles.", "{n} * {m}", n=(2, 12), m=(5, 20)),),
    (
        Move("{p} finds {n} more.", "{x} + {n}", n=(2, 40)),
        Move("{p} loses {n}.", "{x} - {n}", n=(2, 40)),
        Move("The number of marbles becomes {n} times as large.", "{x} * {n}", n=(2, 4)),
        Move("{p} shares them equally with {n} friends.", "{x} // ({n} + 1)", "{x} // {n}", n=(2, 5)),
        Move("{p} gives a third of them away.", "{x} - {x} // 3", "{x} // 3"),
        Move("Then {p} gets as many as at the start.", "{x} + {a}", "{x} + {x}"),
    ),
    "How many marbles does {p} have now?",
)

STOCK = Family(
    "stock",
    (Move("A shop stocks {n} boxes of {m} pens.", "{n} * {m}", n=(2, 12), m=(6, 24)),),
    (
        Move("{n} pens are sold.", "{x} - {n}", n=(2, 60)),
        Move("{n} pens are delivered.", "{x} + {n}", n=(2, 60)),
        Move("Then {n} boxes of {m} pens arrive.", "{x} + {n} * {m}", n=(2, 9), m=(2, 12)),
        Move("A quarter of the pens are sold.", "{x} - {x} // 4", "{x} // 4"),
        Move("The stock is cut by {n}%.", "{x} - {x} * {n} // 100", "{x} - {n}", n=(10, 50)),
        Move("The pens are split equally over {n} shelves, and we count one shelf.", "{x} // {n}", n=(2, 6)),
    ),
    "How many pens is that now?",
)

SAVINGS = Family(
    "savings",
    (Move("{p} saves ${n} a week for {m} weeks.", "{n} * {m}", n=(5, 40), m=(2, 12)),),
    (
        Move("{p} spends ${n}.", "{x} - {n}", n=(2, 60)),
        Move("{p} earns ${n}.", "{x} + {n}", n=(2, 60)),
        Move("{p} pays ${n} a day for {m} days.", "{x} - {n} * {m}", "{x} - {n}", n=(2, 9), m=(2, 7)),
        Move("The savings grow by {n}%.", "{x} + {x} * {n} // 100", "{x} + {n}", n=(5, 50)),
        Move("The savings double.", "{x} * 2"),
        Move("{p} spends half of it.", "{x} // 2"),
    ),
    "How many dollars does {p} have now?",
)

BUS = Family(
    "bus",
    (Move("A train has {n} cars with {m} people in each.", "{n} * {m}", n=(2, 9), m=(8, 40)),),
    (
        Move("{n} people get on.", "{x} + {n}", n=(2, 50)),
        Move("{n} people get off.", "{x} - {n}", n=(2, 50)),
        Move("Half of the people get off.", "{x} // 2"),
        Move("A third of the people get off.", "{x} - {x} // 3", "{x} // 3"),
        Move("{n} people get off and {m} get on.", "{x} - {n} + {m}", n=(2, 30), m=(2, 30)),
        Move("Then as many as at the start get on.", "{x} + {a}", "{x} + {x}"),
    ),
    "How many people are on the train now?",
)

ROAD = Family(
    "road",
    (Move("{p} rides {n} km an hour for {m} hours.", "{n} * {m}", n=(8, 60), m=(2, 6)),),
    (
        Move("{p} rides {n} km further.", "{x} + {n}", n=(2, 60)),
        Move("{p} turns round and comes back {n} km.", "{x} - {n}", n=(2, 40)),
        Move(
            "{p} rides {n} km an hour for {m} hours more.",
            "{x} + {n} * {m}",
            "{x} + {n}",
            n=(5, 30),
            m=(2, 5),
        ),
        Move("The whole way is cut into {n} equal parts, and we take one.", "{x} // {n}", n=(2, 6)),
        Move("{p} rides the same way {n} more times.", "{x} * ({n} + 1)", "{x} * {n}", n=(2, 4)),
    ),
    "How many km is that?",
)

GARDEN = Family(
    "garden",
    (Move("A garden has {n} rows of {m} plants.", "{n} * {m}", n=(3, 15), m=(4, 20)),),
    (
        Move("{n} plants die.", "{x} - {n}", n=(2, 40)),
        Move("{n} plants are added.", "{x} + {n}", n=(2, 40)),
        Move("{n} rows of {m} plants are added.", "{x} + {n} * {m}", n=(2, 6), m=(2, 12)),
        Move("Every {n} plants are replaced by {m}.", "{x} // {n} * {m}", "{x} * {m}", n=(2, 6), m=(2, 5)),
        Move("{n}% of the plants are removed.", "{x} - {x} * {n} // 100", "{x} * {n} // 100", n=(10, 50)),
        Move("The garden becomes {n} times as large.", "{x} * {n}", n=(2, 4)),
    ),
    "How many plants are there now?",
)

RECIPE = Family(
    "recipe",
    (Move("{p} fills {n} jars with 1.5 cups of flour each.", "{n} * 1.5", n=(2, 40)),),
    (
        Move("{p} adds {n} cups.", "{x} + {n}", n=(2, 20)),
        Move("{p} uses {n} cups.", "{x} - {n}", n=(2, 20)),
        Move("{p} makes {n} times the amount.", "{x} * {n}", n=(2, 4)),
        Move("{p} uses 1.5 cups for each of {n} cakes.", "{x} - 1.5 * {n}", "{x} - 1.5", n=(2, 9)),
        Move(
            "{p} needs that much for each of {n} cakes and one more cake.",
            "{x} * ({n} + 1)",
            "{x} * {n}",
            n=(2, 4),
        ),
    ),
    "How many cups is that?",
    halves=True,
)

PAGES = Family(
    "pages",
    (Move("{p} reads {n} pages a day for {m} days.", "{n} * {m}", n=(4, 40), m=(2, 9)),),
    (
        Move("Then {p} reads {n} pages.", "{x} + {n}", n=(2, 60)),
        Move("{n} of these pages were read twice, so they are not counted.", "{x} - {n}", n=(2, 30)),
        Move("{p} reads {n} pages a day for {m} more days.", "{x} + {n} * {m}", n=(2, 20), m=(2, 6)),
        Move("{q} reads {n} times as many.", "{x} * {n}", n=(2, 4)),
        Move("This is {n} times as many as {q} reads.", "{x} // {n}", "{x} * {n}", n=(2, 5)),
        Move("This is {n} fewer than {q} reads.", "{x} + {n}", "{x} - {n}", n=(2, 40)),
    ),
    "How many pages does {p} read?",
)

FAMILIES: dict[str, Family] = {
    f.name: f for f in (CARDS, POINTS, MARBLES, STOCK, SAVINGS, BUS, ROAD, GARDEN, RECIPE, PAGES)
}
