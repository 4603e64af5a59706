"""What is asked: conversations that share system prompts, and the order in which their turns come. Pure."""

import random

# Common words, most of them one token each, so that lengths can be set in words.
WORDS = (
    "time year people way day man thing woman life child world school state family student group country problem hand "
    "part place case week company system program question work government number night point home water room mother "
    "area money story fact month lot right study book eye job word business issue side kind head house service friend "
    "father power hour game line end member law car city community name president team minute idea body information "
    "back parent face others level office door health person art war history party result change morning reason "
    "research girl guy moment air teacher force education foot boy age policy process music market sense nation plan "
    "college interest death course someone experience behind reach local kill six remain effect suggest class control "
    "raise care perhaps late hard field else pass former sell major sometimes require along development themselves "
    "report role better economic effort decide rate strong possible heart drug show leader light voice wife whole "
    "police mind finally pull return free military price less according decision explain son hope even develop view "
    "relationship carry town road drive arm true federal break difference thank receive value international building "
    "action full model join season society tax director early position player agree especially record pick wear paper "
    "special space ground form support event official whose matter everyone center couple site project hit base "
    "activity star table need court produce eat american teach oil half situation easy cost industry figure street "
    "image itself phone either data cover quite picture clear practice piece land recent describe product doctor wall"
).split()


def text(chance, words):
    """Sentences of so many words."""
    parts = []
    while words > 0:
        length = min(words, chance.randint(7, 13))
        words -= length
        parts.append(" ".join(chance.choice(WORDS) for _ in range(length)).capitalize() + ".")
    return " ".join(parts)


class Shape:
    """How many conversations there are, how long they are, and how many are open at once."""

    def __init__(self, systems, conversations, turns, open_at_once, system_words, user_words):
        self.systems = systems
        self.conversations = conversations
        self.turns = turns
        self.open_at_once = open_at_once
        self.system_words = system_words
        self.user_words = user_words


class Conversation:
    """A system prompt, and what its user will say."""

    def __init__(self, shape, number, seed):
        self.number = number
        # Of neighbours in time each has another system prompt, as users of different applications have.
        of_system = number % shape.systems
        self.system = text(random.Random(f"{seed} system {of_system}"), shape.system_words)
        chance = random.Random(f"{seed} user {number}")
        self.says = [text(chance, chance.randint(shape.user_words // 2, shape.user_words * 3 // 2)) for _ in range(shape.turns)]


def order(shape, seed, in_flight):
    """The turns of all conversations as they are asked: numbers of conversations. The next is one of the third that has
    rested longest: people read an answer before they write. It is none of the last `in_flight`, where there are so many:
    those have no answer yet."""
    chance = random.Random(f"{seed} order")
    waiting = list(range(shape.conversations))
    left, asked = {}, []
    while waiting or left:
        while waiting and len(left) < shape.open_at_once:
            left[waiting.pop(0)] = shape.turns
        last = {number: place for place, number in enumerate(asked)}
        by_rest = sorted(left, key=lambda number: last.get(number, -1))
        rested = [number for number in by_rest if number not in asked[-in_flight:]] or by_rest
        number = chance.choice(rested[: max(2, len(left) // 3)])
        asked.append(number)
        left[number] -= 1
        if not left[number]:
            del left[number]
    return asked
