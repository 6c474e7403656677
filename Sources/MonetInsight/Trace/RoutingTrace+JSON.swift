import MonetFoundation

extension RoutingTrace {
    /// The trace as JSON: experts as `group/index`, scores with their halves.
    public func json() -> JSONValue {
        [
            "experts_per_side": .integer(expertsPerSide), "routing_heads": .integer(routingHeads),
            "groups": .array(
                layersOfGroup.enumerated().map { group, layers in
                    ["group": .integer(group), "layers": .array(layers.map { .integer($0) })]
                }),
            "tokens": .array(tokens.map(Self.json)),
        ]
    }

    private static func json(_ token: TracedToken) -> JSONValue {
        [
            "position": .integer(token.position), "id": .integer(Int(token.id)), "text": .string(token.text),
            "groups": .array(
                token.groups.enumerated().map { group, routing in
                    [
                        "group": .integer(group), "active_experts": .integer(routing.activeExperts),
                        "selected_left": .integer(routing.selectedLeft),
                        "selected_right": .integer(routing.selectedRight),
                        "experts": .array(
                            routing.experts.map { score in
                                [
                                    "expert": .string(score.expert.description), "left": .integer(score.left),
                                    "right": .integer(score.right), "score": .number(score.score),
                                ]
                            }),
                    ]
                }),
        ]
    }
}
