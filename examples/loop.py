"""Two policies of different tokenizers learn addition together: all of mutual reinforcement learning in 30 lines."""

import learners
import mutual_env
import sharing
from tokenizers_bridge import CharTokenizer, PairTokenizer, TokenizerBridge

CHARACTERS = "0123456789+=()%"
ROUNDS = 100

# Tasks that a verifier checks, as a PettingZoo parallel env; around it the strategy: who learns what from whom.
tasks = mutual_env.make("mutual/arithmetic-v0", agents=["ada", "bob"], digits=1, modulus=10)
env = sharing.make("sgt", tasks)

# Two learners. `bob` merges two pairs of characters into tokens of their own, so what ada wrote must be translated.
vocabularies = {"ada": CharTokenizer(CHARACTERS), "bob": PairTokenizer(CHARACTERS, [("%", "1"), ("%1", "0")])}
options = {"alphabet": "0123456789", "max_new_tokens": 2, "learning_rate": 60}
policies = {name: learners.make("tabular", name=name, tokenizer=t, **options) for name, t in vocabularies.items()}
bridge = TokenizerBridge(vocabularies.values())

for round_ in range(ROUNDS):
    observations, _ = env.reset(seed=0, options={"round": round_})
    actions = {name: policy.act(observations[name]["prompts"], 8, seed=round_) for name, policy in policies.items()}
    _, rewards, _, _, infos = env.step(actions)  # verified, shared: infos hold each reader's lessons
    for name, policy in policies.items():
        policy.update(learners.build_batch(infos[name]["lessons"], policy, bridge).examples)
    if round_ % 20 == 19:
        print(f"round {round_ + 1}:", ", ".join(f"{name} {reward:.2f}" for name, reward in rewards.items()))
env.close()
