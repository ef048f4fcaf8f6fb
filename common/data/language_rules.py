"""What rules of quality must know of a language: its stop words, its spaces between words, the signs that end sentences.

Usage: `STOP_WORDS.get("de")`; `"zh" in WITHOUT_SPACES`.

Rules made for English are off where they would drop good text of another language. Stop words are the most frequent
short words of a language, of which any paragraph has some; lists of ours, and no list for a language is no mistake.
"""

from __future__ import annotations

_LISTS = """
en the be to of and that have with
af die van en het nie dit is vir met wat
ar من في على أن إلى عن التي الذي هذا لا
bg на и да се за от не са това по
bn এবং এই করে থেকে জন্য না তার একটি হয় যে
ca de la el que i a en les per una
cs a se na je v že to s z do
da og i at det er en til af på der
de der die und in den von zu das mit nicht
el και το να του η της που με για από
es de la que el en y a los del por
et ja on ei et see ka oli kui aga mis
eu eta da ez bat dira izan du ere hau den
fa و در به از که این را با است برای
fi ja on ei se että oli mutta kuin tai myös
fr de la le et les des en un une que
gl de a o que e do da en un non
he של את על לא זה הוא עם כי גם או
hi के है में की और से का को नहीं पर
hr i u je se na da za od su koji
hu a az és hogy nem is egy van meg ez
id yang dan di dari untuk dengan ini pada dalam tidak
is og að í er á sem ekki til það með
it di e che la il un per non una in
lt ir yra kad su iš į ne bet kaip tai
lv un ir ka no ar uz par bet kas nav
ms yang dan di dari untuk dengan ini pada dalam tidak
mr आणि आहे या हे ते व नाही की तर होते
nl de van het een en in is dat op niet
no og i det er en til av på som ikke
nb og i det er en til av på som ikke
pl w i na z nie się do to jest że
pt de a o que e do da em um para
ro de și în a la cu care nu pe o
ru и в не на что с по как это к
sk a sa na je v že to s z do
sl in je v se na da za so ki ne
sq dhe të në e një për me nga që është
sr и у је се на да за од су који i u je se na da za od su koji
sv och i att det som en på är av för
sw na ya wa kwa ni katika za la kama hii
ta ஒரு மற்றும் இந்த என்று அல்லது என அது இது உள்ள தனது
te మరియు ఒక ఈ ఆ కాదు అని తన కోసం నుండి లేదా
tl ang ng sa na at mga ay hindi para ito
tr ve bir bu da de için ile olarak ne çok
uk і в не на що з та до як у
ur کے میں کی ہے اور سے کا کو نے پر
vi và của là có các cho được không trong một
"""
STOP_WORDS = {code: tuple(words) for code, *words in (line.split() for line in _LISTS.strip().splitlines())}
WITHOUT_SPACES = frozenset("zh yue wuu lzh ja th lo km my bo dz".split())  # each character is a word here
# Languages whose sentences end in signs that no ASCII text has; those without spaces are among them.
OWN_STOPS = WITHOUT_SPACES | frozenset("am as bn hi hy mai mni mr my ne or pa sa sat sd ti ur".split())
