"""English words that mean themselves, so that none of them is read as a misspelt name ("hold" is not "gold").

Written for this service: function words, and everyday verbs, nouns and adjectives of customers.
"""

_WORDS = """
about above across after again against ago alive all almost alone along already also although always am among amount
an and another answer any anybody anyone anything anyway apart are area around as ask asked asking at available away
back bad basket be became because become been before began begin behind being believe below beside best better
between beyond big bill bit block blow body book both bought box break brew bring broken brought build business but
buy buying by call called calling came can cannot car card care carry case cash change changed charge charged cheap
check choose city clean clear click close closed cold come coming company complete contact cost could country course
cover crown current customer cut daily damage damaged date day days deal dear deliver delivered delivery did
different direct do does doing done door doubt down draw drawn dream drive drop due during each early easy edit
either else email end enough enter even ever every everybody everyone everything exact except expect explain extra
face fact fail family far fast feel few field file fill final find fine first fit fix floor follow for form forward
found free friend from front full further gave get gets getting gift give given gives giving go goes going gone good
goods got great group grown had half hand happen happy hard has have having he hear heard heart heat held hello help
her here hers high him his hold hole home hope host hour hours house how however huge idea if in indeed info inside
instead into is issue issued it item items its job join just keep kept kind knew know known lack large last late
later latest lazy least leave left less let letter life light like likely line list little live liver load local log
long look looked looking lose loss lost lot lots love low lower made mail main make makes making man many matter may
maybe me mean means meet men might mind mine minute miss missed missing mist money month months more morning most
mother move moved much must my myself name near need needed needs never new news next nice night no nobody none nor
normal not note nothing notice now number of off offer office often old on once one only onto open or order ordered
orders other others ought our ours out outside over own pack page paid pair paper part party pass past pay paying
payment people person phone pick piece place plan play please point poor possible post pretty price problem product
put question quick quite ran rate rather reach read ready real really reason receive received refund remove reply
rest return returned right rise room round run said sale same saw say says see seem seen sell send sent serve
service set several shall she ship shipped shop short should show side sign since site slow small so sold some
somebody someone something soon sorry sort sound speak stand start state stay still stock stop store street such
support sure switch take taken talk teach team tell text than thank thanks that the their them then there these they
thing things think this those though thought through time times to today together told tomorrow tonight too took top
total touch toward town track trade tried trip true trust try trying turn twice two type under until up update upon
us use used useful user using usual vast very via view visit wait waited waiting want wanted was watch water way we
week weeks well went were what when where whether which while who whole whom whose why wide will win wish with
within without woman women wonder word work worked working world worse worst worth would write wrong wrote year
years yes yesterday yet you young your yours
"""
COMMON = frozenset(_WORDS.split())
