import MonetFoundation

extension RoutingTrace {
    /// The trace as JSON, with experts as `group/index`, their scores and their halves.
    public func json() -> JSONValue {
        [
            "units": .string(kind.rawValue), "units_per_group": .integer(unitsPerGroup),
            "experts_per_side": expertsPerSide.map { .integer($0) } ?? .null,
            "routing_heads": .integer(routingHeads),
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
                        "selected_left": routing.selectedLeft.map { .integer($0) } ?? .null,
                        "selected_right": routing.selectedRight.map { .integer($0) } ?? .null,
                        "experts": .array(
                            routing.experts.map { score in
                                [
                                    "expert": .string(score.expert.description),
                                    "left": score.halves.map { .integer($0.left) } ?? .null,
                                    "right": score.halves.map { .integer($0.right) } ?? .null,
                                    "score": .number(score.score),
                                ]
                            }),
                    ]
                }),
        ]
    }
}
