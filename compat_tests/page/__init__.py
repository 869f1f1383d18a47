"""The page at `/`, in a real browser that reaches nothing but the gateway."""
