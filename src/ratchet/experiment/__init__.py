"""Which of two versions is better, and how is that found out without deceiving oneself?"""
