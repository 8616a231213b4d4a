"""The page on which people upload a panorama and walk into it; nothing of it is imported by the rest."""
