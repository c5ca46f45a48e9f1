"""The texts that an audit samples if none are given: portraits of varied people, and pictures without a person.

Words such as ages, hair, clothes and places stand in several texts each, so that drift can be credited to them
(:mod:`spf_lite.evaluation.drift`). Phrases stand between commas: the control map protects each of them.
"""

from __future__ import annotations

#: Base texts of portraits.
PORTRAITS: tuple[str, ...] = (
    "a portrait photo of a young woman, long red hair, a green coat, smiling, in a park",
    "a portrait photo of an elderly man, short gray hair, a brown suit, serious, in a library",
    "a portrait photo of a girl, braided black hair, a yellow raincoat, laughing, on a street",
    "a portrait photo of a middle-aged man, a bald head, a white shirt, smiling, in an office",
    "a portrait photo of an elderly woman, curly gray hair, a blue cardigan, smiling, in a kitchen",
    "a portrait photo of a boy, short blonde hair, a striped t-shirt, surprised, on a beach",
    "a portrait photo of a young man, curly black hair, a denim jacket, serious, on a street",
    "a portrait photo of a middle-aged woman, short black hair, a red dress, smiling, in a restaurant",
    "a portrait photo of a young man, long brown hair, a green hoodie, laughing, in a forest",
    "a portrait photo of an elderly man, long gray hair, a blue shirt, sad, by a window",
    "a portrait photo of a young woman, short blonde hair, a leather jacket, serious, at a train station",
    "a portrait photo of a girl, long brown hair, a white dress, smiling, in a garden",
    "a portrait photo of a middle-aged man, short red hair, a gray suit, serious, in an office",
    "a portrait photo of an elderly woman, long gray hair, a red scarf, laughing, at a market",
    "a portrait photo of a boy, curly brown hair, a blue sweater, sad, in a classroom",
    "a portrait photo of a young woman, braided brown hair, a white shirt, surprised, in a kitchen",
    "a portrait photo of a middle-aged woman, long blonde hair, a gray coat, sad, at a train station",
    "a portrait photo of a young man, short black hair, a leather jacket, smiling, in a park",
    "a portrait photo of an elderly man, a bald head, a green cardigan, laughing, in a garden",
    "a portrait photo of a girl, curly red hair, a blue dress, serious, by a window",
    "a portrait photo of a boy, short black hair, a green t-shirt, laughing, in a park",
    "a portrait photo of a young woman, curly black hair, a yellow sweater, smiling, in a library",
    "a portrait photo of a middle-aged man, curly gray hair, a leather jacket, smiling, on a street",
    "a portrait photo of an elderly woman, short white hair, a brown coat, serious, in a park",
    "a portrait photo of a young man, a bald head, a black t-shirt, serious, in a studio",
    "a portrait photo of a middle-aged woman, curly red hair, a green shirt, laughing, in a garden",
    "a portrait photo of a young woman, long black hair, a red coat, sad, on a beach",
    "a portrait photo of an elderly man, short white hair, a striped shirt, smiling, at a market",
    "a portrait photo of a girl, short black hair, a red sweater, surprised, in a classroom",
    "a portrait photo of a boy, long blonde hair, a yellow raincoat, smiling, in a forest",
    "a portrait photo of a middle-aged man, long black hair, a white t-shirt, sad, on a beach",
    "a portrait photo of a young man, short blonde hair, a blue suit, smiling, in a restaurant",
    "a portrait photo of a young woman, a bald head, a gray hoodie, serious, in a studio",
    "a portrait photo of an elderly woman, braided white hair, a black scarf, smiling, in a studio",
    "a portrait photo of a middle-aged woman, short brown hair, a blue raincoat, surprised, on a street",
    "a portrait photo of a young man, curly red hair, a striped sweater, laughing, in a kitchen",
    "a portrait photo of a girl, long blonde hair, a denim jacket, sad, in a park",
    "a portrait photo of an elderly man, curly white hair, a black coat, surprised, at a train station",
    "a portrait photo of a middle-aged man, short brown hair, a red shirt, laughing, in a restaurant",
    "a portrait photo of a boy, curly black hair, a white shirt, serious, in a library",
    "a portrait photo of a young woman, short brown hair, a black suit, smiling, in an office",
    "a portrait photo of a middle-aged woman, long black hair, a denim jacket, serious, in a forest",
    "a portrait photo of an elderly woman, short gray hair, a yellow dress, sad, in a garden",
    "a portrait photo of a young man, braided black hair, a white hoodie, surprised, in a classroom",
    "a portrait photo of a girl, short red hair, a green cardigan, laughing, in a library",
    "a portrait photo of a middle-aged man, long gray hair, a black sweater, serious, by a window",
    "a portrait photo of a young woman, curly blonde hair, a blue t-shirt, laughing, at a market",
    "a portrait photo of an elderly man, short gray hair, a yellow scarf, serious, in a forest",
)

#: Texts without a person. An adapter for a portrait's attribute should leave them alone.
UNRELATED: tuple[str, ...] = (
    "a photo of a mountain lake at sunrise",
    "a bowl of oranges on a wooden table",
    "an empty street with parked cars, in the rain",
    "a red bicycle against a brick wall",
    "a sailing boat on a calm sea",
    "a cup of coffee beside an open book",
    "a snowy forest, seen from above",
    "a watercolor painting of a lighthouse",
    "a vase of yellow tulips by a window",
    "a castle on a hill under a cloudy sky",
    "a plate of pasta with basil",
    "a black cat asleep on a sofa",
)
