"""The words and sentence templates of the synthetic world; `prefsweep.data.synthetic` gives them meaning.

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
            satire melodrama blockbuster parody fable tragedy""",
        "work": "movie film picture feature production show release adaptation",
        "craft": """acting script plot pacing dialogue soundtrack lighting editing camerawork humor music casting
            choreography photography narration scenery storytelling suspense animation score staging wardrobe chemistry
            symbolism""",
        "part": "ending opening finale climax twist prologue epilogue chase montage flashback wedding reunion",
        "crew": "actor actress director writer narrator producer composer comedian singer dancer",
        "role": """hero villain detective captain teacher doctor soldier stranger neighbor thief sheriff widow
            painter lawyer""",
        "kin": "brother sister mother father cousin friend wife husband roommate daughter son boss",
        "place": "theater cinema hotel village harbor desert castle prison forest station hospital museum",
        "plain": "long short quiet modern simple familiar foreign colorful strange serious dark rural",
        "degree": "very really truly quite rather remarkably absolutely utterly completely deeply",
        "opener": "honestly overall frankly clearly personally certainly surprisingly somehow naturally admittedly",
        "moves": "travels returns escapes hurries walks flies wanders runs",
        "time": "night week month weekend summer winter spring year Friday Sunday",
        "era": "twenties thirties forties fifties sixties seventies eighties nineties",
        "number": "two three four five six",
        "not": "not never hardly scarcely rarely",
    }.items()
}

# Positive and negative lists of one class are equally long: that is what makes the world symmetric.
SENTIMENT: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    name: (tuple(positive.split()), tuple(negative.split()))
    for name, (positive, negative) in {
        "adj": (
            """superb brilliant wonderful charming delightful great clever witty moving thrilling stunning beautiful
            perfect touching memorable magnificent""",
            """terrible horrible dreadful boring dull bland clumsy tedious weak pathetic ridiculous shallow lifeless
            predictable painful poor""",
        ),
        "noun": (
            "masterpiece triumph gem treat delight joy classic treasure",
            "disaster mess failure bore disgrace dud flop waste",
        ),
        "verb": (
            "loved adored enjoyed admired cherished praised liked relished",
            "hated despised disliked detested loathed regretted resented dreaded",
        ),
        "urge": ("recommend rewatch revisit buy applaud endorse", "skip avoid return refund shun ditch"),
        "adverb": (
            "brilliantly beautifully superbly wonderfully gracefully perfectly skillfully elegantly",
            "badly terribly poorly clumsily horribly lazily awkwardly carelessly",
        ),
        "feeling": (
            "happy thrilled delighted inspired satisfied enchanted grateful cheerful",
            "angry bored annoyed disappointed frustrated depressed irritated furious",
        ),
    }.items()
}

OPINIONS: tuple[str, ...] = (
    "The {craft} was {degree} {adj} from start to finish.",
    "The {craft} in this {work} was {degree} {adj}.",
    "The {craft} and the {part} were {not} {-adj}.",
    "The {crew} played every scene {adverb} and looked {adj}.",
    "The {crew} handled the {part} {adverb}, and the {craft} was {adj}.",
    "The {plain} {part} of this {work} was {adverb} filmed.",
    "The {part} in the {place} was {adj} and left me {feeling}.",
    "{opener}, the {craft} of this {work} felt {degree} {adj}.",
    "{opener}, my {kin} and I {verb} this {adj} {work}.",
    "{opener}, I would tell my {kin} to {urge} it.",
    "My {kin} would {not} call this {genre} a {-noun}.",
    "In the {part}, the {crew} was {not} {-adj}.",
    "When the {plain} {role} appeared, I felt {degree} {feeling}.",
    "Like my {kin}, I {verb} the {adj} {craft} of this {work}.",
    "At the {place}, my {kin} {verb} every minute of it.",
    "We left the {place} {feeling}, because the {part} was {adj}.",
    "Thanks to its {craft}, this {adj} {genre} is a {noun}.",
    "As a {plain} {genre}, this {work} is a {adj} {noun}.",
    "It is a {plain} {genre} with a {adj} {part}.",
    "For a {plain} {genre}, the {craft} is {degree} {adj}.",
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
