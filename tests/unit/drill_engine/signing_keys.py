"""Keys that sign the evidence of drills in tests, made anew for each run of them."""

from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from clusterguard.evidence.keys import SigningKey

KEY, OTHER = (SigningKey(ed25519.Ed25519PrivateKey.generate()) for _ in range(2))
P_256 = SigningKey(ec.generate_private_key(ec.SECP256R1()))
