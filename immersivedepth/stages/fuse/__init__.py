"""{name: Prediction} -> Prediction: join what several models say."""
