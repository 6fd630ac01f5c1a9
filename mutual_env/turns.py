"""An env whose episodes have several turns: the world answers what was written, until a conversation is over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile

from gymnasium.spaces import Dict

from mutual_env.confined import Asked, Confined, answers_of, check_confined
from mutual_env.conversations import Conversations, Limits, Spoken
from mutual_env.env import Action, Observation, ReasoningEnv, Stepped, flat, summarize
from mutual_env.errors import InvalidInputError, PlayersError
from mutual_env.heard import check_seats, judged, spoken_to
from mutual_env.interaction import Answer, Interaction, Judging, Measured, Seated, Speaker, checked, takes_turns
from mutual_env.replay import again, heard_in_turns
from mutual_env.seeding import derive_seed
from mutual_env.spaces import conversation_space
from mutual_env.spec import EnvSpec
from mutual_env.tasks.source import InteractiveSource
from mutual_env.types import AgentInfo, Completion, Experience, Group, Metrics, Reply, Verdict
from mutual_env.verifiers import VerifierPool, settle


class ConversationEnv(ReasoningEnv):
    """A round of conversations: G of each agent on each of the P prompts.

    `step` takes the next turn of every open conversation; what is given for one that is over, or waits for others (see
    `TakingTurns`), is not read (None will do). What the world answers is in the next observation. An agent ends when
    all its conversations are over: it is truncated where one of them reached `max_turns` or `max_tokens`, or grew too
    long for its policy, which then writes `Completion.no_room`; terminated otherwise. Then it is verified, rewarded and
    told its groups; until then its reward is 0.0 and its groups are empty. The verifier reads what was written last,
    unless the interaction has said what the conversation came to.

    An interaction that is not inline answers in the pool's worker processes. One that hangs or breaks on a conversation
    ends it with that status, unscored: `on_unscored` says what becomes of it, and `unscored_limit`, which is about
    verifiers, does not count it.
    """

    ends_apart = True

    def __init__(
        self,
        spec: EnvSpec,
        source: InteractiveSource,
        interaction: Interaction,
        pool: VerifierPool | None = None,
        seats: Mapping[str, Speaker] | None = None,
    ) -> None:
        super().__init__(spec, source, pool)
        self._seats = dict(seats or {})
        check_seats(spec.id, interaction, self._seats)
        check_confined(interaction, source.interaction)
        check_players(spec, interaction)
        self._interaction, self._called = interaction, source.interaction
        turns = interaction.max_turns if spec.max_turns is None else min(spec.max_turns, interaction.max_turns)
        self._limits = Limits(turns, spec.max_tokens)
        self._talk = Conversations((), (), spec.group_size, self._limits)
        self._turn = 0
        shape = spec.prompts_per_round, spec.group_size, spec.max_chars
        self._observations: dict[str, Dict] = {agent: conversation_space(*shape) for agent in spec.agents}

    @property
    def max_turns(self) -> int:
        """How often an agent writes in an episode, at most."""
        return self._limits.turns

    @property
    def joint(self) -> bool:
        return self._interaction.joint

    @property
    def takes_turns(self) -> bool:
        """Whether agents write one after the other, so that one may be asked for nothing before it is done."""
        return takes_turns(self._interaction)

    def begin_verifying(self, agent: str, groups: Action, first: int = 0) -> None:
        """What is verified is known when a conversation is over."""

    def step(self, actions: Mapping[str, Action]) -> Stepped:
        if isinstance(actions, Mapping):
            talk, alive = self._talk, self.agents
            actions = {a: talk.without_the_over(a, x) if a in alive else x for a, x in actions.items()}
        self._check(actions)
        self._talk.write({agent: flat(actions[agent]) for agent in self.agents})
        self._talk.answer(self._respond, joint=self._interaction.joint)
        self._turn += 1
        alive = self.agents
        ended = [agent for agent in alive if self._talk.is_over(agent)]
        infos = {agent: AgentInfo(round=self._round, groups=(), metrics={}) for agent in alive}
        infos |= self._settled(ended)
        cut = {agent: self._talk.was_cut(agent) for agent in ended}
        observations = {agent: self._observe()[agent] for agent in alive}
        self.agents = [agent for agent in alive if agent not in ended]
        rewards = {agent: infos[agent]["metrics"].get("reward/mean", 0.0) for agent in alive}
        terminations = {agent: agent in ended and not cut[agent] for agent in alive}
        truncations = {agent: cut.get(agent, False) for agent in alive}
        return observations, rewards, terminations, truncations, infos

    def divergence(self, reader: str, experience: Experience) -> float:
        """The share of the replies in somebody's conversation that would have been others, had the reader written what
        its author wrote in its own place: 0 where the world answers each by itself, for the same is said to the same.

        Where everybody's conversations on a task are answered together, the world is asked again, turn by turn, with
        what everybody wrote in this round. Where agents write one after the other, the first reply that is another one
        makes another conversation of all that follows; so does a player who is not there, in a game of another round.
        """
        if not experience.earlier or not self._interaction.joint:
            return 0.0
        table = self._talk.table(experience, reader)
        if takes_turns(self._interaction) and len(table) != self._interaction.players:
            return 1.0
        said = [turn.reply.text for turn in experience.earlier]
        if self.takes_turns:
            heard = heard_in_turns(self._respond, experience.task, table, reader)
            same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(said, heard, strict=False)))
            return 1.0 - same / len(said)
        replayed = [again(table, reader, turn) for turn in range(len(experience.earlier))]
        answered = self._respond([(experience.task, conversations) for _, conversations in replayed])
        own = [answers[place] for (place, _), answers in zip(replayed, answered, strict=True)]
        return sum(not (isinstance(a, Reply) and a.text == text) for a, text in zip(own, said, strict=True)) / len(own)

    def _begin(self) -> None:
        self._talk = Conversations(self._tasks, self.agents, self._spec.group_size, self._limits)
        self._turn = 0
        if self.takes_turns:
            self._talk.open(self._respond)

    def _observe(self) -> dict[str, Observation]:
        prompts = tuple(task.prompt for task in self._tasks)
        return {
            agent: {"conversations": self._talk.contexts(agent), "prompts": prompts} for agent in self.possible_agents
        }

    def _respond(self, asked: Asked) -> list[list[Answer]]:
        """What the world says to the conversations on each task."""
        if isinstance(self._interaction, Judging) and self._interaction.needs_verdicts:
            asked = judged(asked, self.verify)
        if isinstance(self._interaction, Seated):
            seed = derive_seed(self._seed, "seat", self._interaction.seat, self._round, self._turn)
            asked = spoken_to(asked, self._interaction, self._seats[self._interaction.seat], seed)
        if isinstance(self._interaction, Confined) and not self._interaction.inline:
            return answers_of(self._interaction, self._called, self._pool, asked)
        respond, what = self._interaction.respond, self._spec.id
        return [checked(respond(task, conversations), conversations, what) for task, conversations in asked]

    def _settled(self, ended: Sequence[str]) -> dict[str, AgentInfo]:
        """The round of the agents that end now, verified."""
        spoken = {agent: list(self._talk.spoken(agent)) for agent in ended}
        tasks = [task for task in self._tasks for _ in range(self._spec.group_size)]
        asked = [(t, s) for agent in ended for t, s in zip(tasks, spoken[agent], strict=True)]
        unknown = iter(self.verify([(task, _last(s).text) for task, s in asked if s.verdict is None]))
        verdicts = [next(unknown) if s.verdict is None else s.verdict for _, s in asked]
        kept = self._kept(verdicts, [s.is_failed for _, s in asked])
        size = len(tasks)
        infos: dict[str, AgentInfo] = {}
        for number, agent in enumerate(ended):
            own = range(number * size, (number + 1) * size)
            groups = self._grouped(agent, spoken[agent], [kept.get(i) for i in own])
            said = [(_last(asked[i][1]), verdicts[i]) for i in own if asked[i][1].written_turns]
            metrics = summarize(groups, [completion for completion, _ in said], [verdict for _, verdict in said])
            metrics |= conversation_metrics(spoken[agent]) | gain_metrics(groups) | self._measured(agent)
            infos[agent] = {"round": self._round, "groups": groups, "metrics": metrics}
        return infos

    def _kept(self, verdicts: Sequence[Verdict], failed: Sequence[bool]) -> dict[int, Verdict]:
        """What counts, by its place. How many the world may fail on is not bounded: that is up to what is written."""
        kept: dict[int, Verdict] = {}
        for is_failed, limit in ((False, self._spec.unscored_limit), (True, 1.0)):
            places = [i for i, f in enumerate(failed) if f is is_failed]
            settlement = settle([verdicts[i] for i in places], self._spec.on_unscored, limit)
            kept |= zip((places[i] for i in settlement.kept), settlement.verdicts, strict=True)
        return kept

    def _measured(self, agent: str) -> Metrics:
        """What the interaction says of this agent's round, a mean over the tasks."""
        if not isinstance(self._interaction, Measured):
            return {}
        of_tasks = [self._interaction.measure(agent, seen) for seen in self._talk.as_seen()]
        names = sorted({name for metrics in of_tasks for name in metrics})
        values = {name: [metrics[name] for metrics in of_tasks if name in metrics] for name in names}
        return {name: sum(found) / len(found) for name, found in values.items()}

    def _grouped(self, agent: str, spoken: Sequence[Spoken], settled: Sequence[Verdict | None]) -> tuple[Group, ...]:
        """A game that was over before its player wrote anything is no experience."""
        size = self._spec.group_size
        return tuple(
            tuple(
                Experience(task, agent, _last(s), verdict, self._round, s.context.turns)
                for s, verdict in zip(spoken[p : p + size], settled[p : p + size], strict=True)
                if verdict is not None and s.written_turns
            )
            for task, p in zip(self._tasks, range(0, len(spoken), size), strict=True)
        )


def conversation_metrics(spoken: Sequence[Spoken]) -> Metrics:
    """How long an agent's conversations were, and what share of them reached a limit or broke the world."""
    turns = [s.written_turns for s in spoken]
    return {
        "turns/mean": sum(turns) / len(turns),
        "turns/max": float(max(turns)),
        "turns/cut_share": sum(s.is_cut for s in spoken) / len(spoken),
        "turns/failed_share": sum(s.is_failed for s in spoken) / len(spoken),
    }


def gain_metrics(groups: Sequence[Group]) -> Metrics:
    """What first turns were worth, and how many samples went from nothing to something after them, and back; where the
    world says what a turn was worth."""
    experiences = [e for group in groups for e in group]
    if not any(e.earlier for e in experiences):
        return {}
    firsts = [
        next((turn.reply.reward for turn in e.earlier if not turn.is_opening), e.verdict.reward) for e in experiences
    ]
    pairs = [(first, e.verdict.reward) for first, e in zip(firsts, experiences, strict=True)]
    known = [(first, last) for first, last in pairs if first is not None and last is not None]
    if not known:
        return {}
    return {
        "turns/first_reward": sum(first for first, _ in known) / len(known),
        "turns/to_right": sum(first <= 0.0 < last for first, last in known) / len(known),
        "turns/to_wrong": sum(last <= 0.0 < first for first, last in known) / len(known),
    }


def check_players(spec: EnvSpec, interaction: Interaction) -> None:
    """Refuse a game that is for another number of agents."""
    if not takes_turns(interaction):
        return
    if not interaction.joint:
        raise InvalidInputError(f"{spec.id}: agents write one after the other, so its interaction must be joint")
    if len(spec.agents) != interaction.players:
        raise PlayersError(
            f"{spec.id} is played by exactly {interaction.players} agents, got {len(spec.agents)}: "
            f"make it with agents={interaction.players}, or their names"
        )


def _last(spoken: Spoken) -> Completion:
    if spoken.last is None:
        raise ValueError("a conversation that is over has something written last")
    return spoken.last
