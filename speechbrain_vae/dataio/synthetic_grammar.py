"""The sentences of the synthetic corpus: a small English grammar.

A few hundred words, chosen so that all 39 phones of the reduced ARPAbet set
come often and that eSpeak NG reports each phone by itself, with its own time:
words in which it says two phones as one unit (the rhotic vowel of "yard", the
syllabic l of "little", the l of "cold", which it folds into the vowel) or taps a t
("city") are left out.

Authors
 * speechbrain-vae contributors 2026
"""

import re


def _words(text):
    return tuple(text.split())


PERSONS = _words(
    """
    boy man woman teacher judge nurse king queen duke cook coach chef thief youth
    father mother brother cousin monk pilot baker driver singer author lawyer chief
    prince witch wizard nephew boss dog cat fox goose mouse cow fish sheep bird dove
    bug duck frog giraffe chimp pigeon rabbit monkey hawk moth goat zebra tiger
    spider cowboy clown lamb
    """
)

THINGS = _words(
    """
    box book coin toy treasure shoe fudge cheese juice cup vase badge watch bag
    thread cloth feather ring wing song rope soap yacht yolk yam hook hood cushion
    sugar pudding wood foot couch crown gown noise poison collage television measure
    hat lamp map jug jacket jam brush peach chain chalk thumb tooth yogurt oyster
    ointment voice basket pillow hammer ladder picture ticket message package orange
    engine blanket blouse pouch dish stitch zip prize rose breeze cage page stage
    vision decision explosion illusion closure glove log leaf
    """
)

PLACES = _words(
    """
    house room town village bridge kitchen valley beach lake shop church cave woods
    path hedge brook south earth college office station ocean bathroom roof lodge
    ledge island river bank bench shed tent ship boat van taxi palace campus meadow
    swamp zoo lab block
    """
)

ADJECTIVES = _words(
    """
    big red blue green yellow young huge good bad cheap thick thin smooth rough loud
    brown round wooden woolen noisy happy funny foolish shiny rich strange beige
    clever soft wrong long strong calm odd shy jolly quick white tiny heavy famous
    bushy rusty foggy dusty hungry angry thirsty third first ninth goofy cosy lazy
    crazy rosy fuzzy dizzy chosen frozen broken slim plain blond
    """
)

PAST = _words(
    """
    saw took gave found lost chose brought bought washed pushed shook threw caught
    hid watched liked loved measured joined enjoyed destroyed fixed followed showed
    used touched judged changed moved chewed cooked drew dropped kissed licked
    hugged borrowed buried swallowed saved tossed thanked sketched reached counted
    wanted treasured avoided mixed led
    """
)

PRESENT = _words(
    """
    see take give find choose bring wash push shake throw catch hide watch like love
    measure join enjoy destroy fix follow show use touch judge change move chew cook
    draw drop kiss lick hug save toss thank sketch reach treasure avoid mix borrow
    """
)

ADVERBS = _words(
    """
    slowly quickly proudly loudly gently happily once twice again today tonight soon
    yesterday calmly
    """
)

PREPOSITIONS = _words(
    """
    in on behind beneath under above beyond by from with without through
    """
)

DETERMINERS = _words(
    """
    the the the a a this that his each my one no every another
    """
)

COUNTS = _words(
    """
    two three five six seven eight nine ten
    """
)

PLURALS = _words(
    """
    boys dogs cows birds shoes books coins toys songs rings cups vases wings hats
    bags maps ships judges cages roses cousins fathers pouches dishes kings
    """
)

NAMES = _words(
    """
    Ruth Joy Hugh Beth Jack Tim Zoe Sean Roy Faith Judy Josh
    """
)

CLAUSES = (
    "{person} {past} {thing}",
    "{person} {past} {thing} {preposition} {place}",
    "{name} {past} {count} {plural} {preposition} {place}",
    "{name} and {person} {past} {thing}",
    "{person} {preposition} {place} {past} {count} {plural}",
)

SENTENCES = (
    "{clause}.",
    "{clause} {adverb}.",
    "{adverb}, {clause}.",
    "{clause}, but {clause}.",
    "{clause} when {name} {past} {thing}.",
    "why did {person} {present} {thing} {preposition} {place}?",
    "how can they {present} {count} {plural} with {thing}?",
    "did {name} {present} {thing}, and who {past} {thing}?",
    "we {past} {thing}, and she {past} {count} {plural} {adverb}.",
    "{present} {thing}, {name}, and {present} {thing} {preposition} {place}.",
)

VOCABULARY = sorted(
    {
        word.lower()
        for words in (
            PERSONS,
            THINGS,
            PLACES,
            ADJECTIVES,
            PAST,
            PRESENT,
            ADVERBS,
            PREPOSITIONS,
            DETERMINERS,
            COUNTS,
            PLURALS,
            NAMES,
            _words("an and but when why did how can they who we she"),
        )
        for word in words
    }
)
"""Every word that a sentence can hold, in lower case."""


def sentence(rng):
    """One sentence of the grammar.

    Arguments
    ---------
    rng : random.Random
        The only source of chance: the same state gives the same sentence.

    Returns
    -------
    str
        Words with the punctuation that shapes the intonation; its words are
        all in :data:`VOCABULARY`.

    Example
    -------
    >>> import random
    >>> text = sentence(random.Random(3))
    >>> text[-1] in ".?", set(words(text)) <= set(VOCABULARY)
    (True, True)
    """
    text = _MERGED.sub(r"\1 that ", _fill(rng.choice(SENTENCES), rng))
    return text[0].upper() + text[1:]


def words(text):
    """The words of a sentence in lower case, without punctuation.

    Example
    -------
    >>> words("Soon, Ruth saw a cow.")
    ['soon', 'ruth', 'saw', 'a', 'cow']
    """
    return [word.strip(".,?").lower() for word in text.split()]


def _fill(template, rng):
    """Replace the slots of a template from left to right."""
    start = template.find("{")
    if start < 0:
        return template
    end = template.index("}", start)
    filled = _slot(template[start + 1 : end], rng)
    return template[:start] + filled + _fill(template[end + 1 :], rng)


def _slot(name, rng):
    if name == "clause":
        return _fill(rng.choice(CLAUSES), rng)
    if name in _NOUNS:
        return _noun_phrase(_NOUNS[name], rng)
    return rng.choice(_WORDS[name])


def _noun_phrase(nouns, rng):
    phrase = [rng.choice(nouns)]
    if rng.random() < 0.6:
        phrase.insert(0, rng.choice(ADJECTIVES))
    determiner = rng.choice(DETERMINERS)
    if determiner == "a" and phrase[0][0] in "aeiou":
        determiner = "an"
    return " ".join([determiner, *phrase])


# eSpeak NG says these pairs as one word, so that "the" would have no time of its own.
_MERGED = re.compile(r"\b(in|on|from|with) the ")

_NOUNS = {"person": PERSONS, "thing": THINGS, "place": PLACES}

_WORDS = {
    "adverb": ADVERBS,
    "count": COUNTS,
    "name": NAMES,
    "past": PAST,
    "plural": PLURALS,
    "preposition": PREPOSITIONS,
    "present": PRESENT,
}
