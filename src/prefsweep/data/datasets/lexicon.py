"""The words and sentence templates of the synthetic world; `prefsweep.data.datasets.synthetic` gives them meaning.

A template is a sentence. `{craft}` draws any word of that class; a sentiment class such as `{adj}` draws a word
that agrees with the sentence, and `{-adj}` one that disagrees, which a negator before it then turns around.

Three rules keep every sentence readable and every check exact; the tests hold them:
no word belongs to two classes, every template has at least seven words (so a prompt never reaches the second
sentence), and every word that may follow "a" starts with a consonant.
"""

CLASSES: dict[str, tuple[str, ...]] = {
    name: tuple(words.split())
    for name, words in {
        "genre": """thriller comedy drama western musical mystery romance documentary sequel remake cartoon fantasy
            satire melodrama blockbuster parody fable tragedy biopic whodunit""",
        "work": "movie film picture feature production show release adaptation",
        "craft": """acting script plot pacing dialogue soundtrack lighting editing camerawork humor music casting
            choreography photography narration scenery storytelling suspense animation score staging wardrobe chemistry
            symbolism direction makeup premise action""",
        "part": """ending opening finale climax twist prologue epilogue chase montage flashback wedding reunion
            heist duel rescue trial""",
        "crew": "actor actress director writer narrator producer composer comedian singer dancer cameraman editor",
        "role": """hero villain detective captain teacher doctor soldier stranger neighbor thief sheriff widow
            painter lawyer heroine sidekick pilot robot""",
        "kin": "brother sister mother father cousin friend wife husband roommate daughter son boss uncle aunt",
        "place": """theater cinema hotel village harbor desert castle prison forest station hospital museum farm
            subway""",
        "plain": """long short quiet modern simple familiar foreign colorful strange serious dark rural modest recent
            local silent""",
        "opener": """honestly overall frankly clearly personally certainly surprisingly somehow naturally admittedly
            meanwhile eventually""",
        "moves": "travels returns escapes hurries walks flies wanders runs drives sails",
        "time": "night week month weekend summer winter spring autumn year Friday Sunday Monday",
        "era": "twenties thirties forties fifties sixties seventies eighties nineties",
        "number": "two three four five six",
        "not": "not never hardly scarcely rarely",
    }.items()
}

# Positive and negative lists of one class are equally long: that is what makes the world symmetric. They are short,
# and `{adverb} {adj}` stand side by side in many templates, because a small model finds out that there are two
# sentiments at all only from pairs of words it meets often; it then learns that a whole review keeps to one of them.
SENTIMENT: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    name: (tuple(positive.split()), tuple(negative.split()))
    for name, (positive, negative) in {
        "adj": (
            """superb brilliant wonderful charming delightful great clever witty moving thrilling stunning perfect
            touching magnificent""",
            """terrible horrible dreadful boring dull bland clumsy tedious weak pathetic shallow painful
            ridiculous predictable""",
        ),
        "noun": ("masterpiece triumph gem treat delight", "disaster mess failure bore disgrace"),
        "verb": ("loved enjoyed", "hated disliked"),
        "urge": ("recommend rewatch", "skip avoid"),
        "adverb": ("brilliantly wonderfully beautifully superbly", "terribly horribly painfully dreadfully"),
        "feeling": ("happy thrilled inspired grateful", "angry bored annoyed depressed"),
    }.items()
}

OPINIONS: tuple[str, ...] = (
    "The {craft} was {adverb} {adj} from start to finish.",
    "The {craft} in this {work} was {adverb} {adj}.",
    "The {craft} and the {part} were {not} {-adj}.",
    "The {crew} played every scene {adverb} and looked {adj}.",
    "The {crew} handled the {part} {adverb}, and the {craft} was {adj}.",
    "The {plain} {part} of this {work} was {adverb} filmed.",
    "The {part} in the {place} was {adj} and left me {feeling}.",
    "{opener}, the {craft} of this {work} felt {adverb} {adj}.",
    "{opener}, my {kin} and I {verb} this {adj} {work}.",
    "{opener}, I would tell my {kin} to {urge} it.",
    "My {kin} would {not} call this {genre} a {-noun}.",
    "In the {part}, the {crew} was {not} {-adj}.",
    "When the {plain} {role} appeared, we all felt {feeling}.",
    "Like my {kin}, I {verb} the {adj} {craft} of this {work}.",
    "At the {place}, my {kin} {verb} every minute of it.",
    "We left the {place} {feeling}, because the {part} was {adj}.",
    "Thanks to its {craft}, this {adj} {genre} is a {noun}.",
    "As a {plain} {genre}, this {work} is a {adj} {noun}.",
    "It is a {plain} {genre} with a {adj} {part}.",
    "For a {plain} {genre}, the {craft} is {adverb} {adj}.",
)

REMARKS: tuple[str, ...] = (
    "I watched this {genre} last {time} with my {kin}.",
    "My {kin} saw the {work} at a {plain} {place}.",
    "The {plain} story follows a {role} from the {place}.",
    "This {plain} {work} is set in a {place}.",
    "The {role} meets a {plain} {crew} near the {place}.",
    "The {crew} also made a {genre} in the {era}.",
    "In the {part}, the {role} {moves} to the {place}.",
    "This {plain} {genre} was filmed near the {place}.",
    "{opener}, this {genre} lasts for about {number} hours.",
)
