"""The load `gateway bench` puts on a server, and the measure it takes. Knows OpenAI's words, and nothing of the gateway's insides.

texts     what is sent, no text twice
peer      one request to the server
reply     is what came back right?
window    does it count?
tally     counted
clients   the loop of all that
"""
