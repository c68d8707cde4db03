"""One file per Lambda: gather the facts, ask the core to decide, apply its decision."""
