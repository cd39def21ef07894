"""The same server on many machines: Ray Serve places, watches and scales the parts; no home-made cluster.

application.py  what is deployed, and with how much of everything   ingress.py   HTTP: the app of `create_app`
client.py       `ModelClient` over the replicas                     replica.py   an `EngineClient` in a Serve replica
fleet.py        what the replicas last said of themselves           messages.py  what goes between those two
routing.py      which replica a prompt goes to: the rule            router.py    the same, as Serve calls it
prompts.py      the prompts folder as bytes, and back               run.py       `zeroshot deploy`

    client --HTTP--> proxy --ASGI--> ingress --messages.Call--> replica --ZeroMQ--> engine process

`serve run zeroshot.cluster.application:app` is the same application as `zeroshot deploy`. Needs the extra `cluster`.
"""
